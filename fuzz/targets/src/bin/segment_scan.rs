#![no_main]

// The scan reads the disk in pieces of 1 MiB.
diptych_fuzz_targets::target!(diptych_fuzz::segment_scan::holds, 8 << 20);
