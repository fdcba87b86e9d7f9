// StepSpans: where the time of steps went, seconds of this rank's host thread. On a GPU, forward and backward are the
// time to enqueue the work, and the wait for it shows in the span that needs its result.
#pragma once

namespace dtrain {

struct StepSpans {
  double data = 0;  // waiting for micro-batches
  double forward = 0;
  double backward = 0;   // with the reduction that overlaps it
  double reduce = 0;     // waiting for what is left of the reduction, and agreeing on the step
  double optimizer = 0;  // gradient norm and update

  StepSpans& operator+=(const StepSpans& other) {
    data += other.data;
    forward += other.forward;
    backward += other.backward;
    reduce += other.reduce;
    optimizer += other.optimizer;
    return *this;
  }
};

}  // namespace dtrain
