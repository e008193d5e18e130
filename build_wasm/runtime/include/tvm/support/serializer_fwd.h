#ifndef TVM_SUPPORT_SERIALIZER_FWD_H_
#define TVM_SUPPORT_SERIALIZER_FWD_H_

namespace tvm {
namespace support {

/*! \brief How values of type T are laid out in a Stream. `enabled` is false for a type that has no layout. */
template <typename T, typename Enable = void>
struct Serializer {
  static constexpr bool enabled = false;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_SERIALIZER_FWD_H_
