//! What all targets share: a property may use no more memory than its input justifies.

use std::alloc::System;

use cap::Cap;
use diptych_fuzz::Property;
pub use libfuzzer_sys;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes of memory for each byte of input: decoded values are larger than what encodes them, and the property has copies.
const BYTES_FOR_A_BYTE: usize = 256;

/// Lets a panic be told with its backtrace, which needs more memory than a property may use.
pub fn prepare() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        lift_limit();
        tell(panic);
    }));
}

/// Runs a property on an input. Memory beyond `room` and what the input justifies is refused, which ends the process.
pub fn run(property: Property, room: usize, input: &[u8]) {
    let limit = ALLOCATOR.allocated() + room + BYTES_FOR_A_BYTE * input.len();
    ALLOCATOR.set_limit(limit).expect("the limit is above what is allocated");
    property(input);
    lift_limit();
}

fn lift_limit() {
    ALLOCATOR.set_limit(usize::MAX).expect("no limit is lower than any");
}

/// The target of one property, which may use so many bytes of memory whatever its input.
#[macro_export]
macro_rules! target {
    ($property:path, $room:expr) => {
        $crate::libfuzzer_sys::fuzz_target!(init: $crate::prepare(), |input: &[u8]| $crate::run($property, $room, input));
    };
}
