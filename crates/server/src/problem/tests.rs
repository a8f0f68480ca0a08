//! Rendering of problems.
