#![no_main]

diptych_fuzz_targets::target!(diptych_fuzz::fragment_record::holds, 1 << 20);
