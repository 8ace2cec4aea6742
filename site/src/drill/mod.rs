//! Drills: the keeper of the passive site rehearses a failover (`core::drill` decides), and the keeper of the active site
//! obeys: it hands the lease over, or cuts itself off for a while.

mod cut;
mod desk;
mod facts;
mod isolated;
mod log;
mod obey;
mod prober;
mod rest;
mod run;

pub use cut::CutSwitch;
pub use desk::{DrillDesk, DrillParts, DrillWork, Refused};
pub use facts::predicted;
pub use log::{DrillLog, DrillSummary, logs};
pub use obey::{DrillOrders, OBEY, Obey};
pub use rest::RestEndpoint;
