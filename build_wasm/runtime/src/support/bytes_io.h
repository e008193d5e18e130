// Streams over bytes in memory.
#ifndef TVM_SRC_SUPPORT_BYTES_IO_H_
#define TVM_SRC_SUPPORT_BYTES_IO_H_

#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace tvm {
namespace support {

/*! \brief Reads bytes that someone else keeps. */
class BytesInStream : public Stream {
 public:
  explicit BytesInStream(const std::string& bytes) : next_(bytes.data()), left_(bytes.size()) {}
  explicit BytesInStream(const ffi::Bytes& bytes) : next_(bytes.data()), left_(bytes.size()) {}

  size_t Read(void* to, size_t size) final {
    size = std::min(size, left_);
    if (size != 0) std::memcpy(to, next_, size);
    next_ += size;
    left_ -= size;
    return size;
  }
  size_t Write(const void*, size_t) final { TVM_FFI_THROW(InternalError) << "a stream to read from was written to"; }
  using Stream::Read;
  using Stream::Write;

 private:
  const char* next_;
  size_t left_;
};

/*! \brief Appends to a string that someone else keeps. */
class BytesOutStream : public Stream {
 public:
  explicit BytesOutStream(std::string* bytes) : bytes_(bytes) {}

  size_t Read(void*, size_t) final { TVM_FFI_THROW(InternalError) << "a stream to write to was read from"; }
  size_t Write(const void* from, size_t size) final {
    bytes_->append(static_cast<const char*>(from), size);
    return size;
  }
  using Stream::Read;
  using Stream::Write;

 private:
  std::string* bytes_;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SRC_SUPPORT_BYTES_IO_H_
