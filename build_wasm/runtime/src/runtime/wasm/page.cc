// What the page's JavaScript needs beside TVM's own sources: entry points of @mlc-ai/web-runtime, C++ exceptions as
// JavaScript errors, logging, and the list of the kernels. Part of wasm_runtime.cc.
#include <new>
#include <stdexcept>
#include <typeinfo>

extern "C" {

// --- given by JavaScript ---
int TVMFFIWasmSafeCall(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result);
void TVMFFIWasmFunctionDeleter(void* self);
/*! \brief Throws a JavaScript Error with the message; memory is as it was at the throw. */
[[noreturn]] void WebGemmaThrow(const char* message, size_t size);
/*! \brief Shows a line in the console. level: 0 debug, 1 info, 2 warning, 3 error. */
void WebGemmaLog(int level, const char* message, size_t size);

// --- called by JavaScript ---
__attribute__((export_name("TVMWasmAllocSpace"))) void* TVMWasmAllocSpace(int size) {
  return new int64_t[(size + 7) / 8];
}
__attribute__((export_name("TVMWasmFreeSpace"))) void TVMWasmFreeSpace(void* space) {
  delete[] static_cast<int64_t*>(space);
}
__attribute__((export_name("TVMFFIWasmFunctionCreate"))) int TVMFFIWasmFunctionCreate(void* self,
                                                                                      TVMFFIObjectHandle* out) {
  return TVMFFIFunctionCreate(self, TVMFFIWasmSafeCall, TVMFFIWasmFunctionDeleter, out);
}
__attribute__((export_name("TVMFFIWasmGetLastError"))) const char* TVMFFIWasmGetLastError() {
  static std::string last_error;
  last_error = ::tvm::ffi::details::MoveFromSafeCallRaised().what();
  return last_error.c_str();
}

// --- C++ exceptions ---
// This build cannot unwind (zig's wasi libc++abi has no exceptions): a throw leaves the wasm as a JavaScript error.
void* __cxa_allocate_exception(size_t size) { return std::malloc(size); }
void __cxa_free_exception(void* thrown) { std::free(thrown); }
[[noreturn]] void __cxa_throw(void* thrown, std::type_info* type, void (*)(void*)) {
  std::string message;
  if (*type == typeid(::tvm::ffi::Error)) {
    auto* error = static_cast<::tvm::ffi::Error*>(thrown);
    message = error->kind() + ": " + error->message();
  } else if (*type == typeid(std::runtime_error)) {
    message = static_cast<std::runtime_error*>(thrown)->what();
  } else if (*type == typeid(std::out_of_range)) {
    message = static_cast<std::out_of_range*>(thrown)->what();
  } else if (*type == typeid(std::bad_alloc)) {
    message = "the WebAssembly memory is full";
  } else {
    message = std::string("C++ exception of type ") + type->name();
  }
  WebGemmaThrow(message.data(), message.size());
}

}  // extern "C"

namespace tvm {
namespace runtime {
namespace detail {

[[noreturn]] void LogFatalImpl(const std::string& file, int lineno, const std::string& message) {
  std::string text = file + ":" + std::to_string(lineno) + ": " + message;
  WebGemmaThrow(text.data(), text.size());
}

void LogMessageImpl(const std::string&, int, int level, const std::string& message) {
  WebGemmaLog(level, message.data(), message.size());
}

}  // namespace detail

// Declared by file_utils.h for executable.cc, which can also save and load files.
void LoadBinaryFromFile(const std::string& name, std::string*) {
  TVM_FFI_THROW(RuntimeError) << "a page has no file " << name;
}
void SaveBinaryToFile(const std::string& name, const std::string&) {
  TVM_FFI_THROW(RuntimeError) << "a page has no file " << name;
}

namespace {

/*! \brief Adds what each WebGPU module below `module` holds: name -> {info, code}. */
void CollectKernels(const ffi::Module& module, ffi::json::Object* kernels) {
  if (std::string(module->kind()) == "webgpu") {
    ffi::Function code = module->GetFunction("webgpu.get_shader").value();
    auto infos = ffi::json::Parse(module->GetFunction("webgpu.get_fmap").value()().cast<ffi::String>());
    for (const auto& [name, info] : infos.cast<ffi::json::Object>()) {
      ffi::json::Object kernel;
      kernel.Set("info", info);
      kernel.Set("code", code(name).cast<ffi::String>());
      kernels->Set(name, kernel);
    }
  }
  for (const ffi::Any& imported : module->imports()) CollectKernels(imported.cast<ffi::Module>(), kernels);
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef().def("webgemma.kernels", [](const ffi::Module& module) -> ffi::String {
    ffi::json::Object kernels;
    CollectKernels(module, &kernels);
    return ffi::json::Stringify(kernels);
  });
  // @mlc-ai/web-runtime looks all of these up when it starts. The page calls none of them.
  for (const char* name :
       {"tvmjs.runtime.TensorCopyFromBytes", "tvmjs.runtime.TensorCopyToBytes", "tvmjs.runtime.ArrayConcat",
        "tvmjs.runtime.ConcatEmbeddings", "tvmjs.array.decode_storage", "vm.builtin.tensor_cache.get",
        "vm.builtin.tensor_cache.remove", "vm.builtin.tensor_cache.update", "vm.builtin.tensor_cache.clear",
        "vm.builtin.param_module_from_cache", "vm.builtin.param_module_from_cache_by_name",
        "vm.builtin.sample_top_p_from_logits", "vm.builtin.sample_top_p_from_prob",
        "vm.builtin.apply_repetition_penalty", "vm.builtin.apply_presence_and_frequency_penalty",
        "vm.builtin.apply_softmax_with_temperature"}) {
    refl::GlobalDef().def_packed(name, [name](ffi::PackedArgs, ffi::Any*) {
      TVM_FFI_THROW(RuntimeError) << name << " is not part of WebGemma's runtime";
    });
  }
}

}  // namespace runtime
}  // namespace tvm
