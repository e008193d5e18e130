// Byte streams as TVM's runtime sources use them: little endian, which is also WebAssembly's own order.
#ifndef TVM_SUPPORT_IO_H_
#define TVM_SUPPORT_IO_H_

#include <cstddef>

#include "serializer_fwd.h"

namespace tvm {
namespace support {

/*! \brief A sequence of bytes to read from or to write to; values go through Serializer<T>. */
class Stream {
 public:
  virtual ~Stream() = default;

  /*! \brief Reads up to `size` bytes and returns how many there were. */
  virtual size_t Read(void* to, size_t size) = 0;
  /*! \brief Writes `size` bytes and returns how many were written. */
  virtual size_t Write(const void* from, size_t size) = 0;

  /*! \brief Reads one value; false when the stream ends before it does. */
  template <typename T>
  bool Read(T* value) {
    return Serializer<T>::Read(this, value);
  }
  template <typename T>
  void Write(const T& value) {
    Serializer<T>::Write(this, value);
  }

  /*! \brief Reads `count` values without a length in front; false when the stream ends before they do. */
  template <typename T>
  bool ReadArray(T* values, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      if (!Read(values + i)) return false;
    }
    return true;
  }
  template <typename T>
  void WriteArray(const T* values, size_t count) {
    for (size_t i = 0; i < count; ++i) Write(values[i]);
  }
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_IO_H_
