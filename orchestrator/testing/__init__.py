"""For tests of backends, providers and programs that use them: contract suites, a fake backend, a fake provider."""
