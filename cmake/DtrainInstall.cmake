# cmake --install: the program, its libraries, the public headers and the package for find_package(dtrain). The folder can be
# moved as a whole; the libraries find each other by their place, and LibTorch and MPI where they were at build time.
include(CMakePackageConfigHelpers)

# What other projects may include; everything that these include is among them, which tests/integration/test_package.py checks.
set(DTRAIN_PUBLIC_HEADERS
  configs/load_config.h configs/settings.def configs/train_config.h
  core/clock.h core/digest.h core/error.h core/file.h core/json.h core/log.h core/random.h core/version.h
  datasets/batch.h datasets/batch_loader.h datasets/dataset.h datasets/label_kind.h datasets/sample_order.h
  datasets/collators/collator.h datasets/collators/padding_collator.h datasets/collators/stacking_collator.h
  dist/agreement.h dist/communicator.h dist/core_binding.h dist/flight_recorder.h dist/host_comm.h dist/make_communicator.h dist/mpi_session.h
  dist/reducer.h dist/run_job.h dist/world.h
  launcher/run_trainer.h
  trainer/evaluation.h trainer/first_rank.h trainer/loop_totals.h trainer/memory_metrics.h trainer/precision.h trainer/registry.h
  trainer/spike_watch.h trainer/step_spans.h trainer/train_step.h trainer/trainer.h
  trainer/callbacks/callback.h trainer/callbacks/early_stopping.h trainer/callbacks/log_printer.h
  trainer/callbacks/log_writer.h trainer/callbacks/progress_bar.h trainer/callbacks/tensorboard_writer.h
  trainer/checkpoint/checkpoint_store.h trainer/checkpoint/trainer_state.h
  trainer/metrics/metric.h trainer/metrics/metric_parts.h
  trainer/models/generation.h trainer/models/model.h trainer/models/safetensors.h
  trainer/optim/grad_scaler.h trainer/optim/learning_rates.h trainer/optim/lr_schedule.h trainer/optim/metric_schedule.h
  trainer/optim/optimizer.h trainer/optim/optimizer_state.h trainer/optim/parameter_groups.h)
foreach(_header ${DTRAIN_PUBLIC_HEADERS})
  get_filename_component(_folder ${_header} DIRECTORY)
  install(FILES ${_header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/dtrain/${_folder})
endforeach()

get_property(_layers GLOBAL PROPERTY DTRAIN_LAYERS)
install(TARGETS ${_layers} EXPORT dtrainTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS dtrain RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(_loaded dtrain_cuda dtrain_parquet)  # by the libraries beside them, when they are needed
  if(TARGET ${_loaded})
    install(TARGETS ${_loaded} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  endif()
endforeach()

set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/dtrain)
install(EXPORT dtrainTargets NAMESPACE dtrain:: DESTINATION ${_package})
configure_package_config_file(cmake/dtrainConfig.cmake.in ${PROJECT_BINARY_DIR}/dtrainConfig.cmake
  INSTALL_DESTINATION ${_package} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/dtrainConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/dtrainConfig.cmake ${PROJECT_BINARY_DIR}/dtrainConfigVersion.cmake
  cmake/FindLibTorch.cmake DESTINATION ${_package})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
