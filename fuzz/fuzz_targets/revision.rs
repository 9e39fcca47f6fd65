#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| foldersync_fuzz::target("revision")(data));
