//! The only place that touches the kernel: maps, programs, links, routes.
