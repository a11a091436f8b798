//! Why a request would go where it would go: the same decisions, told.
