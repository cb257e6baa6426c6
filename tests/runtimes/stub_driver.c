// The few calls that runtimes/driver.py makes of libcuda, with the answers that a test asks for (cc -D…). No GPU is
// imitated: nothing but these questions can be asked of it.
#include <stddef.h>
#include <string.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef DEVICES
#define DEVICES 1
#endif

int cuInit(unsigned flags) { return flags ? 1 : INIT; }

int cuGetErrorName(int code, const char** text) {
  *text = code == 100 ? "CUDA_ERROR_NO_DEVICE" : code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : NULL;
  return *text ? 0 : 1;
}

int cuGetErrorString(int code, const char** text) {
  *text = code == 100   ? "no CUDA-capable device is detected"
          : code == 803 ? "system has unsupported display driver / cuda driver combination"
                        : NULL;
  return *text ? 0 : 1;
}

#ifndef ANCIENT
int cuDriverGetVersion(int* version) {
  *version = 12060;
  return 0;
}
#endif

int cuDeviceGetCount(int* count) {
  *count = DEVICES;
  return 0;
}

int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < DEVICES ? 0 : 101;
}

int cuDeviceGetName(char* name, int size, int device) {
  strncpy(name, device ? "NVIDIA Second" : "Orin", (size_t)size);
  return 0;
}

int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  *bytes = (size_t)(device + 7) << 30;
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? !device : attribute == 16 ? 12 : attribute == 19;
  return 0;
}
