//! Brings the kernel from what is to what should be.
