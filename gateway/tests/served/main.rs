//! A gateway and what stands behind it, as its clients see them.

mod commits;
mod common;
mod conflicts;
mod files;
mod lending;
mod losses;
mod multipart;
mod part_sums;
mod promises;
mod retention;
mod s3;
mod sessions;
mod slow;
mod uploads;
mod versions;
mod web;
