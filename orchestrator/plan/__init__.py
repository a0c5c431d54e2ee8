"""Pure: from options to a Job, from a Job to what each Sandbox is and what each Run may do."""
