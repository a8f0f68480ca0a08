//! diaspore-block
