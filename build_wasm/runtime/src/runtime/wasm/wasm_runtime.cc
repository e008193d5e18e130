// TVM's runtime as far as WebGemma's page uses it, in one translation unit. Static initialisers of one unit run in the
// order of its lines: the FFI registers its own types and functions before any runtime source registers with it.
#define TVM_LOG_DEBUG 0
#define TVM_LOG_CUSTOMIZE 1
#define TVM_FFI_USE_LIBBACKTRACE 0
#define TVM_FFI_ALWAYS_LOG_BEFORE_THROW 0

// --- FFI: objects, functions, errors, modules ---
#include "tvm_ffi/src/ffi/object.cc"
#include "tvm_ffi/src/ffi/error.cc"
#include "tvm_ffi/src/ffi/backtrace.cc"
#include "tvm_ffi/src/ffi/custom_allocator.cc"
#include "tvm_ffi/src/ffi/init_once.cc"
#include "tvm_ffi/src/ffi/function.cc"
#include "tvm_ffi/src/ffi/container.cc"
#include "tvm_ffi/src/ffi/dtype.cc"
#include "tvm_ffi/src/ffi/tensor.cc"
#include "tvm_ffi/src/ffi/extra/env_c_api.cc"
#include "tvm_ffi/src/ffi/extra/env_context.cc"
#include "tvm_ffi/src/ffi/extra/json_parser.cc"
#include "tvm_ffi/src/ffi/extra/json_writer.cc"
#include "tvm_ffi/src/ffi/extra/library_module.cc"
#include "tvm_ffi/src/ffi/extra/library_module_system_lib.cc"
#include "tvm_ffi/src/ffi/extra/module.cc"

// --- devices and tensors ---
#include "tvm/src/runtime/device_api.cc"
#include "tvm/src/runtime/workspace_pool.cc"
#include "tvm/src/runtime/cpu_device_api.cc"
#include "tvm/src/runtime/tensor.cc"
#include "tvm/src/runtime/memory/memory_manager.cc"

// --- the virtual machine ---
#include "tvm/src/runtime/vm/bytecode.cc"
#include "tvm/src/runtime/vm/executable.cc"
#include "tvm/src/runtime/vm/builtin.cc"
#include "tvm/src/runtime/vm/vm.cc"

// --- WebGPU, whose device is JavaScript's ---
#include "tvm/web/emcc/webgpu_runtime.cc"

#include "page.cc"
