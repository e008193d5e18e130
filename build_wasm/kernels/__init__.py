"""TIR kernels of the model, one concept per file. They know shapes and packings, nothing of models or files."""

# StorageRewrite puts workgroup arrays of different element types (vec4<f32> and f32) into one, which is not WGSL.
# Assertions would check in the page, for every kernel, the shapes that this build has put together itself.
PASS_OPTIONS = {"tirx.disable_storage_rewrite": True, "tirx.disable_assert": True}
