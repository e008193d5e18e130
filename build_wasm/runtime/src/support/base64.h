// tensor.cc can turn a tensor into base64 text and back, which the page never asks for: these say so.
#ifndef TVM_SRC_SUPPORT_BASE64_H_
#define TVM_SRC_SUPPORT_BASE64_H_

#include <tvm/ffi/error.h>
#include <tvm/support/io.h>

namespace tvm {
namespace support {

class Base64Stream : public Stream {
 public:
  explicit Base64Stream(Stream*) { TVM_FFI_THROW(RuntimeError) << "this runtime has no base64"; }
  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void*, size_t) final { return 0; }
  using Stream::Read;
  using Stream::Write;
  void InitPosition() {}
  void Finish() {}
};

using Base64InStream = Base64Stream;
using Base64OutStream = Base64Stream;

}  // namespace support
}  // namespace tvm

#endif  // TVM_SRC_SUPPORT_BASE64_H_
