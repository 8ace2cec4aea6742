#![no_main]

diptych_fuzz_targets::target!(diptych_fuzz::extent_tail::holds, 3 << 20);
