//! What should be in the kernel, computed from the tables; pure.
