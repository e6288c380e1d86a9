//! Pure parts of the programs, compiled for the host too.
#![no_std]
