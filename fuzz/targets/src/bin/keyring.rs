#![no_main]

diptych_fuzz_targets::target!(diptych_fuzz::keyring::holds, 1 << 20);
