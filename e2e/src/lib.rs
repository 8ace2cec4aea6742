//! Tests of the whole: the demo, and what looks at the running product from outside.

pub mod bench;
pub mod demo;
pub mod history;
pub mod kills;
pub mod kind;
pub mod minio;
pub mod model;
pub mod network;
pub mod program;
pub mod takeover;
