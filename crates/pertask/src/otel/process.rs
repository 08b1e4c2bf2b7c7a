//! The process context: what readers must know of this process before they can read its threads' records. There is one.

use super::error::PublishError;
use super::mapping::{MOST_BYTES, Mapping};
use super::payload::{AnyValue, KeyValue, ProcessContext, Resource};
use prost::Message as _;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most bytes of the resource. The rest is for keys.
const MOST_RESOURCE: usize = MOST_BYTES / 4;

struct Context {
    mapping: Mapping,
    resource: Resource,
}

static CONTEXT: Mutex<Option<Context>> = Mutex::new(None);

/// The process that has published, or 0. A forked child has none of the mapping.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether it is another process that has published: the one that has forked this one.
pub(super) fn is_anothers() -> bool {
    // Relaxed: the number refers to no other memory.
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != std::process::id()
}

/// Publishes the context, or gives it another resource. `keys` are the names of attributes' keys, each at its number's place.
pub(super) fn publish(
    resource: Vec<(String, String)>,
    keys: impl Iterator<Item = &'static str>,
) -> Result<(), PublishError> {
    let attributes = resource.iter().map(|(key, value)| KeyValue::new(key, &**value)).collect();
    let resource = Resource { attributes };
    let bytes = resource.encoded_len();
    if bytes > MOST_RESOURCE {
        return Err(PublishError::TooLong { bytes, limit: MOST_RESOURCE });
    }
    let forked = is_anothers();
    let mut context = context();
    if forked && let Some(parents) = context.take() {
        // Its memory is not here.
        std::mem::forget(parents);
    }
    match &mut *context {
        Some(context) => context.resource = resource,
        None => {
            if is_published() {
                return Err(PublishError::Another);
            }
            let mapping = Mapping::new().map_err(PublishError::NoMemory)?;
            *context = Some(Context { mapping, resource });
        }
    }
    // Relaxed: as above.
    OWNER.store(std::process::id(), Ordering::Relaxed);
    if let Some(context) = &mut *context {
        context.write(keys.collect());
    }
    Ok(())
}

/// Writes the context once more, with these keys.
pub(super) fn update(keys: impl Iterator<Item = &'static str>) {
    if !is_anothers()
        && let Some(context) = &mut *context()
    {
        context.write(keys.collect());
    }
}

impl Context {
    fn write(&mut self, keys: AnyValue) {
        let context = ProcessContext {
            resource: Some(self.resource.clone()),
            attributes: vec![
                // The version that readers know until the proposal's own, `tls_v1`, is in use.
                KeyValue::new("threadlocal.schema_version", "tlsdesc_v1_dev"),
                KeyValue::new("threadlocal.attribute_key_map", keys),
            ],
        };
        self.mapping.publish(&context.encode_to_vec());
    }
}

fn context() -> MutexGuard<'static, Option<Context>> {
    CONTEXT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the process has a context already.
fn is_published() -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let names = ["[anon_shmem:OTEL_CTX]", "[anon:OTEL_CTX]", "/memfd:OTEL_CTX"];
    maps.lines().filter_map(|line| line.split_whitespace().nth(5)).any(|name| names.contains(&name))
}
