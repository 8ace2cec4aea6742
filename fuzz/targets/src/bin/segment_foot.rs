#![no_main]

diptych_fuzz_targets::target!(diptych_fuzz::segment_foot::holds, 1 << 20);
