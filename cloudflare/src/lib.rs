//! Cloudflare, as far as the failover needs it.
//!
//! [`client`] makes the few calls, never repeats one, and says of each failure whether it can have been applied.
//! [`address`] keeps the public name on the addresses of the active site, [`balancer`] by the order of a load balancer's
//! pools, [`tunnel`] by an alias to a tunnel of its own. [`witness`] keeps the lease's third vote in one record. [`health`] keeps a health check for each site. [`emulator`] stands in for Cloudflare where there is no account: API, DNS, edge and health checks.

pub mod address;
pub mod balancer;
pub mod client;
pub mod emulator;
pub mod health;
pub mod tunnel;
pub mod witness;
