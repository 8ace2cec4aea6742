//! Cloudflare, as far as the failover needs it.
//!
//! [`client`] makes the few calls, never repeats one, and says of each failure whether it can have been applied.
//! [`address`] keeps the public name on the addresses of the active site. [`witness`] keeps the lease's third vote in one
//! record. [`health`] keeps a health check for each site. [`emulator`] stands in for Cloudflare where there is no account: API, DNS, edge and health checks.

pub mod address;
pub mod client;
pub mod emulator;
pub mod health;
pub mod witness;
