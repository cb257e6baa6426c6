// A CUDA driver of which everything lies in host memory, for real pycuda to be linked to. No GPU is imitated: a launch
// writes the number 0.5, and a call fails where FAIL names it ("cuLaunchKernel=719"). SHORT=1: a launch leaves out half.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failing(const char* name) {
  const char* asked = getenv("FAIL");
  size_t length = strlen(name);
  return asked && !strncmp(asked, name, length) && asked[length] == '=' ? atoi(asked + length + 1) : 0;
}
#define TRY if (failing(__func__)) return failing(__func__)

int cuInit(unsigned flags) { TRY; return (int)flags; }
int cuDriverGetVersion(int* version) { *version = 12020; return 0; }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int size, int device) { snprintf(name, (size_t)size, "Stub %d", device); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { (void)device; *bytes = (size_t)1 << 30; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  int integrated = getenv("INTEGRATED") != NULL;  // a GPU that shares its memory with the CPU
  *value = attribute == 75 ? 9 : attribute == 19 ? 1 : attribute == 18 ? integrated : device;
  return 0;
}
int cuGetErrorString(int code, const char** text) {
  *text = code == 2     ? "out of memory"
          : code == 46  ? "CUDA-capable device(s) is/are busy or unavailable"
          : code == 222 ? "the provided PTX was compiled with an unsupported toolchain."
          : code == 700 ? "an illegal memory access was encountered"
          : code == 719 ? "unspecified launch failure"
                        : "unknown error";
  return 0;
}
int cuGetErrorName(int code, const char** text) { return cuGetErrorString(code, text); }

int cuDevicePrimaryCtxRetain(void** context, int device) { TRY; *context = (void*)(size_t)(16 + device); return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device; }
int cuCtxDetach(void* context) { (void)context; return 0; }
int cuCtxPopCurrent_v2(void** context) { *context = (void*)16; return 0; }
int cuCtxPushCurrent_v2(void* context) { (void)context; TRY; return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuStreamCreate(void** stream, unsigned flags) { *stream = (void*)(size_t)(32 + flags); return 0; }
int cuStreamDestroy_v2(void* stream) { (void)stream; return 0; }
int cuStreamSynchronize(void* stream) { (void)stream; TRY; return 0; }

static char again[64 << 20];  // what AGAIN gives to every allocation of a megabyte or more, as a driver may
int cuMemAlloc_v2(size_t* address, size_t size) {
  TRY;
  *address = getenv("AGAIN") && size >= 1 << 20 ? (size_t)again : (size_t)malloc(size);
  return 0;
}
int cuMemFree_v2(size_t address) {
  if ((char*)address != again) free((void*)address);
  return 0;
}
int cuMemHostAlloc(void** memory, size_t size, unsigned flags) { (void)flags; TRY; *memory = malloc(size); return 0; }
int cuMemHostGetDevicePointer_v2(size_t* address, void* memory, unsigned flags) {
  *address = (size_t)memory + flags;
  return 0;
}
int cuMemFreeHost(void* memory) { free(memory); return 0; }
int cuMemcpyHtoDAsync_v2(size_t to, const void* from, size_t size, void* stream) {
  (void)stream;
  TRY;
  memcpy((void*)to, from, size);
  return 0;
}
int cuMemcpyDtoHAsync_v2(void* to, size_t from, size_t size, void* stream) {
  (void)stream;
  TRY;
  memcpy(to, (void*)from, size);
  return 0;
}
int cuMemsetD8Async(size_t address, unsigned char value, size_t size, void* stream) {
  (void)stream;
  TRY;
  memset((void*)address, value, size);
  return 0;
}

int cuModuleLoadDataEx(void** module, const void* image, unsigned n, int* options, void** values) {
  (void)image, (void)n, (void)options, (void)values;
  TRY;
  *module = (void*)64;
  return 0;
}
int cuModuleLoadData(void** module, const void* image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }
int cuModuleUnload(void* module) { (void)module; return 0; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  (void)module, (void)name;
  *function = (void*)65;
  return 0;
}
int cuFuncSetBlockShape(void* function, int x, int y, int z) { (void)function, (void)x, (void)y, (void)z; return 0; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void** extra) {
  (void)function, (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)stream;
  (void)parameters;
  TRY;
  const char* packed = extra[1];  // the arguments of `FrameKernel.stage`, one after the other
  int size = *(const int*)(packed + 32);
  float* output = *(float* const*)(packed + 48);
  for (int i = 0; i < size * size / (getenv("SHORT") ? 2 : 1); ++i) output[i] = 0.5f;
  return 0;
}

#define NEVER(name) int name(void) { return 999; }
NEVER(cuArray3DCreate_v2) NEVER(cuArray3DGetDescriptor_v2) NEVER(cuArrayCreate_v2) NEVER(cuArrayDestroy)
NEVER(cuArrayGetDescriptor_v2) NEVER(cuCtxAttach) NEVER(cuCtxCreate_v4) NEVER(cuCtxDisablePeerAccess)
NEVER(cuCtxEnablePeerAccess) NEVER(cuCtxGetApiVersion) NEVER(cuCtxGetCacheConfig) NEVER(cuCtxGetDevice)
NEVER(cuCtxGetLimit) NEVER(cuCtxGetSharedMemConfig) NEVER(cuCtxSetCacheConfig) NEVER(cuCtxSetLimit)
NEVER(cuCtxSetSharedMemConfig) NEVER(cuDeviceCanAccessPeer) NEVER(cuDeviceComputeCapability)
NEVER(cuDeviceGetByPCIBusId) NEVER(cuDeviceGetPCIBusId) NEVER(cuEventCreate) NEVER(cuEventDestroy_v2)
NEVER(cuEventElapsedTime_v2) NEVER(cuEventQuery) NEVER(cuEventRecord) NEVER(cuEventSynchronize)
NEVER(cuFuncGetAttribute) NEVER(cuFuncSetAttribute) NEVER(cuFuncSetCacheConfig) NEVER(cuFuncSetSharedSize)
NEVER(cuIpcCloseMemHandle) NEVER(cuIpcGetEventHandle) NEVER(cuIpcGetMemHandle) NEVER(cuIpcOpenEventHandle)
NEVER(cuIpcOpenMemHandle_v2) NEVER(cuLaunch) NEVER(cuLaunchGrid) NEVER(cuLaunchGridAsync) NEVER(cuLinkAddData_v2)
NEVER(cuLinkAddFile_v2) NEVER(cuLinkComplete) NEVER(cuLinkCreate_v2) NEVER(cuLinkDestroy) NEVER(cuMemAllocManaged)
NEVER(cuMemAllocPitch_v2) NEVER(cuMemGetAddressRange_v2) NEVER(cuMemGetInfo_v2) NEVER(cuMemHostGetFlags)
NEVER(cuMemHostRegister_v2) NEVER(cuMemHostUnregister) NEVER(cuMemcpy2DAsync_v2) NEVER(cuMemcpy2DUnaligned_v2)
NEVER(cuMemcpy2D_v2) NEVER(cuMemcpy3DAsync_v2) NEVER(cuMemcpy3DPeer) NEVER(cuMemcpy3DPeerAsync)
NEVER(cuMemcpy3D_v2) NEVER(cuMemcpyAtoA_v2) NEVER(cuMemcpyAtoD_v2) NEVER(cuMemcpyAtoH_v2) NEVER(cuMemcpyDtoA_v2)
NEVER(cuMemcpyDtoDAsync_v2) NEVER(cuMemcpyDtoD_v2) NEVER(cuMemcpyDtoH_v2) NEVER(cuMemcpyHtoA_v2)
NEVER(cuMemcpyHtoD_v2) NEVER(cuMemcpyPeer) NEVER(cuMemcpyPeerAsync) NEVER(cuMemsetD16Async) NEVER(cuMemsetD16_v2)
NEVER(cuMemsetD2D16Async) NEVER(cuMemsetD2D16_v2) NEVER(cuMemsetD2D32Async) NEVER(cuMemsetD2D32_v2)
NEVER(cuMemsetD2D8Async) NEVER(cuMemsetD2D8_v2) NEVER(cuMemsetD32Async) NEVER(cuMemsetD32_v2) NEVER(cuMemsetD8_v2)
NEVER(cuModuleGetGlobal_v2) NEVER(cuModuleGetSurfRef) NEVER(cuModuleGetTexRef) NEVER(cuModuleLoad)
NEVER(cuParamSetSize) NEVER(cuParamSetTexRef) NEVER(cuParamSetf) NEVER(cuParamSeti) NEVER(cuParamSetv)
NEVER(cuProfilerInitialize) NEVER(cuProfilerStart) NEVER(cuProfilerStop) NEVER(cuStreamAttachMemAsync)
NEVER(cuStreamQuery) NEVER(cuStreamWaitEvent) NEVER(cuSurfRefGetArray) NEVER(cuSurfRefSetArray)
NEVER(cuTexRefCreate) NEVER(cuTexRefDestroy) NEVER(cuTexRefGetAddressMode) NEVER(cuTexRefGetAddress_v2)
NEVER(cuTexRefGetArray) NEVER(cuTexRefGetFilterMode) NEVER(cuTexRefGetFlags) NEVER(cuTexRefGetFormat)
NEVER(cuTexRefSetAddress2D_v3) NEVER(cuTexRefSetAddressMode) NEVER(cuTexRefSetAddress_v2) NEVER(cuTexRefSetArray)
NEVER(cuTexRefSetFilterMode) NEVER(cuTexRefSetFlags) NEVER(cuTexRefSetFormat)
