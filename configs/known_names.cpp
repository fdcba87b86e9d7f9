#include "configs/known_names.h"

#include <algorithm>

namespace dtrain {

const std::vector<Alias>& all_aliases() {
  static const std::vector<Alias> aliases = {
      {"evaluation_strategy", "eval_strategy", {}},
      {"evaluation_steps", "eval_steps", {}},
      {"evaluate_during_training", "eval_strategy", {{true, "steps"}, {false, "no"}}},
      {"warmup_ratio", "warmup_steps", {}, true},
      {"no_cuda", "use_cpu", {}},
      {"per_gpu_train_batch_size", "per_device_train_batch_size", {}},
      {"per_gpu_eval_batch_size", "per_device_eval_batch_size", {}},
      {"group_by_length", "train_sampling_strategy", {{true, "group_by_length"}, {false, "random"}}},
      {"push", "push_to_hub", {}, false, "hub"},
      {"repo", "hub_model_id", {}, false, "hub"},
      {"strategy", "hub_strategy", {}, false, "hub"},
      {"private", "hub_private_repo", {}, false, "hub"},
      {"always_push", "hub_always_push", {}, false, "hub"},
      {"revision", "hub_revision", {}, false, "hub"},
  };
  return aliases;
}

const std::vector<UnsupportedName>& all_unsupported_names() {
  using Other = UnsupportedName::Other;
  static const Json kNone = nullptr;
  static const Json kNothingElse = Json::array();
  static const char* const kToken =
      "the token is that of $HF_TOKEN or `hf auth login`, so that no file of a run holds it";
  static const char* const kRepository = "hub_model_id = \"user/name\" names the repository";
  static const char* const kCompile = "LibTorch has no compiler for models";
  static const char* const kTracker = "there are no trackers; log.jsonl in output_dir holds every record";
  static const char* const kSharding = "every rank holds the whole model";
  static const char* const kTpu = "there are no TPUs";
  static const char* const kAccelerate = "batches always go to ranks as accelerate's defaults say";
  static const char* const kAmp = "mixed precision is always LibTorch's own";
  static const char* const kColumns = "the columns are named in [data]";
  static const char* const kThreads = "batches are prepared by threads of the process";
  static const std::vector<UnsupportedName> names = {
      // Fields of TrainingArguments.
      {"optim_target_modules", kNone, kNothingElse, "there is no GaLore, APOLLO or LOMO"},
      {"gradient_checkpointing_kwargs",
       kNone,
       {Json::object(), {{"use_reentrant", false}}, {{"use_reentrant", true}}},
       "blocks are always computed again as a whole"},
      {"torch_compile", false, kNothingElse, kCompile},
      {"torch_compile_backend", kNone, kNothingElse, kCompile},
      {"torch_compile_mode", kNone, kNothingElse, kCompile},
      {"use_liger_kernel", false, kNothingElse, "these kernels need Python"},
      {"liger_kernel_config", kNone, kNothingElse, "these kernels need Python"},
      {"use_cache", false, kNothingElse, "training keeps no keys and values of earlier calls"},
      {"log_on_each_node", true, {false}, "one log per job is written, by rank 0; log_level_replica is for the others"},
      {"run_name", kNone, kNothingElse, kTracker, Other::kWarn},
      {"project", "huggingface", kNothingElse, kTracker, Other::kWarn},
      {"trackio_space_id", kNone, kNothingElse, kTracker},
      {"trackio_bucket_id", kNone, kNothingElse, kTracker},
      {"trackio_static_space_id", kNone, {false}, kTracker},
      {"eval_do_concat_batches", true, kNothingElse, "metrics are counted batch by batch"},
      {"eval_use_gather_object", false, kNothingElse, "only counts and sums travel between ranks"},
      {"include_for_metrics", Json::array(), kNothingElse, "metrics see logits and labels"},
      {"save_on_each_node", false, kNothingElse, "rank 0 writes the checkpoints"},
      {"enable_jit_checkpoint", false, {true}, "a checkpoint is saved on SIGTERM, SIGINT and SIGUSR2 in any case"},
      {"hub_token", kNone, kNothingElse, kToken},
      {"restore_callback_states_from_checkpoint",
       false,
       {true},
       "a resumed run always goes on with the counts of its callbacks"},
      {"accelerator_config", kNone, kNothingElse, kAccelerate},
      {"parallelism_config", kNone, kNothingElse, kSharding},
      {"dataloader_persistent_workers", false, {true}, kThreads},
      {"dataloader_multiprocessing_context", kNone, kNothingElse, kThreads},
      {"dataloader_in_order", true, kNothingElse, "batches always come in order"},
      {"remove_unused_columns", true, kNothingElse, kColumns},
      {"label_names", kNone, kNothingElse, kColumns},
      {"length_column_name", "length", kNothingElse, "the lengths are those of the token store", Other::kWarn},
      {"ddp_find_unused_parameters", kNone, {false, true}, "a parameter without a gradient always counts as zero"},
      {"ddp_broadcast_buffers", kNone, {false, true}, "buffers are constants, copied once from rank 0"},
      {"ddp_static_graph", kNone, {false}, "the reducer needs no such promise"},
      {"fsdp", kNone, {false, "", Json::array()}, kSharding},
      {"fsdp_config", kNone, {Json::object()}, kSharding},
      {"deepspeed", kNone, kNothingElse, "DeepSpeed needs Python"},
      {"debug", "", {Json::array()}, "there is no trace of overflows; a step whose gradient is not finite is reported"},
      {"do_train", false, {true}, "`dtrain FILE` trains"},
      {"do_eval",
       false,
       {true},
       "`dtrain FILE` evaluates when eval_strategy says, `dtrain evaluate FILE` does nothing else"},
      {"do_predict", false, kNothingElse, "`dtrain predict FILE` predicts"},
      {"local_rank", -1, kNothingElse, "mpirun or srun numbers the ranks"},
      // Further fields of Seq2SeqTrainingArguments.
      {"sortish_sampler", false, kNothingElse, "train_sampling_strategy = \"group_by_length\" sorts by length"},
      // Arguments of earlier versions.
      {"logging_dir", kNone, kNothingElse, kTracker, Other::kWarn},
      {"save_safetensors", true, kNothingElse, "weights are always safetensors"},
      {"use_mps_device", false, kNothingElse, "there is no Metal backend"},
      {"fp16_backend", "auto", {"amp"}, kAmp},
      {"half_precision_backend", "auto", {"amp"}, kAmp},
      {"fp16_opt_level", "O1", kNothingElse, kAmp},
      {"include_inputs_for_metrics", false, kNothingElse, "metrics see logits and labels"},
      {"include_tokens_per_second", false, kNothingElse, "log.jsonl has the tokens and the seconds of every log"},
      {"dispatch_batches", kNone, {false}, kAccelerate},
      {"split_batches", kNone, {false}, kAccelerate},
      {"fsdp_min_num_params", 0, kNothingElse, kSharding},
      {"fsdp_transformer_layer_cls_to_wrap", kNone, kNothingElse, kSharding},
      {"sharded_ddp", "", kNothingElse, kSharding},
      {"push_to_hub_token", kNone, kNothingElse, kToken},
      {"push_to_hub_model_id", kNone, kNothingElse, kRepository},
      {"push_to_hub_organization", kNone, kNothingElse, kRepository},
      {"tpu_metrics_debug", false, kNothingElse, kTpu},
      {"tpu_num_cores", kNone, kNothingElse, kTpu},
      {"ray_scope", "last", kNothingElse, "`dtrain sweep FILE` searches by itself, without Ray"},
      {"jit_mode_eval", false, kNothingElse, kCompile},
      {"torchdynamo", kNone, kNothingElse, kCompile},
      {"use_ipex", false, kNothingElse, kCompile},
      {"past_index", -1, kNothingElse, "no state is carried from one batch to the next"},
      {"mp_parameters", "", kNothingElse, kSharding},
      {"use_legacy_prediction_loop", false, kNothingElse, "there is one evaluation loop"},
  };
  return names;
}

const Alias* find_alias(std::string_view section, std::string_view key) {
  const auto& aliases = all_aliases();
  const auto found = std::find_if(aliases.begin(), aliases.end(),
                                  [&](const Alias& a) { return a.section == section && a.old_name == key; });
  return found == aliases.end() ? nullptr : &*found;
}

const UnsupportedName* find_unsupported(std::string_view section, std::string_view key) {
  if (section != "training") return nullptr;
  const auto& names = all_unsupported_names();
  const auto found = std::find_if(names.begin(), names.end(), [&](const UnsupportedName& n) { return n.name == key; });
  return found == names.end() ? nullptr : &*found;
}

bool is_harmless(const UnsupportedName& name, const Json& value) {
  return value == name.peer_default ||
         std::find(name.accepted.begin(), name.accepted.end(), value) != name.accepted.end();
}

}  // namespace dtrain
