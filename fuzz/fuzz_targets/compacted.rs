#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| diaspore_fuzz::run("compacted", data));
