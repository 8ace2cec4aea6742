//! How Diptych's processes talk: length-prefixed frames, the messages that node-agents answer, the client of one agent
//! and the server's accept loop, and the mTLS identities that all internal links between machines rest on.

pub mod agent;
pub mod authority;
pub mod bucket;
pub mod client;
mod descriptors;
pub mod files;
pub mod frame;
pub mod http;
pub mod identity;
pub mod peer;
pub mod renewal;
pub mod review;
mod send;
pub mod server;
pub mod tls;
