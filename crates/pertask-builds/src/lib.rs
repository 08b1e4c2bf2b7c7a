//! Programs that `ci/builds.sh` builds in different ways, and samples: see the examples. They have a crate of their own because an example is
//! built with all that the tests of its crate need.
