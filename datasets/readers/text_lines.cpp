// Plain text: every line is a record, empty ones too, because language modelling joins the lines again.
#include "datasets/readers/examples.h"

namespace dtrain {

void read_text_lines(std::string_view bytes, Examples& examples) {
  Lines lines(bytes);
  std::string_view line;
  while (lines.next(line)) {
    examples.add_text(checked_utf8(line, examples.options(), examples.place(lines.number())), lines.number());
  }
}

}  // namespace dtrain
