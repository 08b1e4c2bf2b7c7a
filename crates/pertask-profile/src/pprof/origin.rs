//! What the comments of a file say of it: whether we wrote it, how it was sampled, and what it lacks.

use super::super::builder::MOST_REMARKS;
use super::super::{Lost, TaskRoot};
use super::tables::{Tables, malformed};
use super::{LOST, MECHANISM, OURS, REMARK, ReadError, TASK_ROOT};

/// What is known of a file from its comments.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// Whether we wrote it, so that labels have our meaning. Files from before this mark have a mechanism.
    pub(super) is_ours: bool,
    pub(super) mechanism: String,
    pub(super) lost: Lost,
    pub(super) remarks: Vec<String>,
    /// How to know the frame that polls a task, if functions have no names yet.
    pub(super) task_root: Option<TaskRoot>,
}

impl Origin {
    pub(super) fn of(tables: &Tables<'_>) -> Result<Self, ReadError> {
        let mut origin = Self::default();
        for comment in &tables.comments {
            let comment = tables.string(*comment);
            origin.take(&comment.map_err(|why| malformed("a comment", &why))?);
        }
        Ok(origin)
    }

    fn take(&mut self, comment: &str) {
        if comment == OURS {
            self.is_ours = true;
        } else if let Some(words) = comment.strip_prefix(MECHANISM) {
            self.is_ours = true;
            words.clone_into(&mut self.mechanism);
        } else if let Some(root) = comment.strip_prefix(TASK_ROOT) {
            let parts = root.split_once(' ');
            self.task_root = parts.map(|(functions, file)| TaskRoot {
                functions: functions.to_owned(),
                file: file.to_owned(),
            });
        } else if let Some(remark) = comment.strip_prefix(REMARK) {
            if self.remarks.len() < MOST_REMARKS {
                self.remarks.push(remark.to_owned());
            }
        } else if let Some((name, count)) =
            comment.strip_prefix(LOST).and_then(|it| it.split_once('='))
            && let Ok(count) = count.parse()
        {
            let parts = self.lost.parts().into_iter().filter(|part| part.key == name);
            parts.for_each(|part| *part.count = count);
        }
    }
}
