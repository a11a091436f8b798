//! What something costs; nobody pays here.

/// `limits::Cost`.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub standing: u32,
    pub descriptors: u32,
}
