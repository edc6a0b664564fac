//! Decodes blocks of every layout to f32: the CPU twin of `shaders/shared/layout_*.wgsl`.
