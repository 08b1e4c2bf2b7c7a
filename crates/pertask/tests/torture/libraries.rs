//! Libraries that come and go, with code of theirs on the stack.

use crate::harness::{rounds, skip, start, stop, torture};
use std::ffi::CString;
use std::fs;
use std::process::Command;
use std::thread;

const SOURCE: &str = "unsigned long work(unsigned long n) {
  volatile unsigned long sum = 0;
  for (unsigned long i = 0; i < n; i++) sum += i;
  return sum;
}
";

#[test]
fn loaded_called_and_unloaded_by_several_threads() {
    let folder = std::env::temp_dir().join(format!("pertask-torture-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("work.c"), folder.join("work.so"));
    fs::write(&source, SOURCE).unwrap();
    let flags = ["-O1", "-shared", "-fPIC", "-fomit-frame-pointer", "-o"];
    let built = Command::new("cc").args(flags).arg(&library).arg(&source).status();
    // Each child builds its own: they run one after the other.
    torture(|mechanism| {
        if !built.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return skip(&format!("no C compiler: {built:?}"));
        }
        let Some(sampler) = start(mechanism) else { return };
        // Each thread has a copy: one that is loaded twice is not unloaded.
        thread::scope(|scope| {
            for number in 0..3 {
                let copy = folder.join(format!("work{number}.so"));
                fs::copy(&library, &copy).unwrap();
                let name = CString::new(copy.to_str().unwrap()).unwrap();
                scope.spawn(move || {
                    for _ in 0..rounds(60) {
                        // SAFETY: a library of ours, closed when nothing of it runs any more.
                        unsafe {
                            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
                            assert!(!handle.is_null());
                            let work = libc::dlsym(handle, c"work".as_ptr());
                            assert!(!work.is_null());
                            let work = std::mem::transmute::<
                                *mut libc::c_void,
                                extern "C" fn(u64) -> u64,
                            >(work);
                            assert_eq!(work(400_000), 400_000 * 399_999 / 2);
                            assert_eq!(libc::dlclose(handle), 0);
                        }
                    }
                });
            }
        });
        stop(sampler);
    });
    let _ = fs::remove_dir_all(&folder);
}
