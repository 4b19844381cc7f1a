#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kassa_fuzz::config(bytes));
