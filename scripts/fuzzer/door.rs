// SPDX-License-Identifier: GPL-2.0

//! What libFuzzer calls. The only `unsafe` of the fuzzer.

use std::os::raw::c_int;

/// One input.
#[no_mangle]
extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> c_int {
    let bytes = match size {
        0 => &[],
        // SAFETY: libFuzzer gives `size` bytes that nobody changes while this runs.
        _ => unsafe { std::slice::from_raw_parts(data, size) },
    };
    super::run(bytes);
    0
}
