// Part of builds with AddressSanitizer only: libraries stay loaded, so that a leak which is found at the end of the
// process can be told from those of the plugins of Open MPI.
extern "C" int dlclose(void* /*library*/) { return 0; }
