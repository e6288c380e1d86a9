//! The API over its wire: requests in, status, headers and bytes out, without sockets.

mod access;
mod bad_input;
mod cluster;
mod custom;
mod definitions;
mod documents;
mod lists;
mod objects;
mod pods;
mod rows;
mod services;
mod streams;
mod watches;
