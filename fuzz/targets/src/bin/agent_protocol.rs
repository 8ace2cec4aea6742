#![no_main]

// A header makes room for the whole body that it announces: 8 MiB at most.
diptych_fuzz_targets::target!(diptych_fuzz::agent_protocol::holds, 12 << 20);
