"""WHEN: Prefect flows, no domain logic. Import a flow from its own module after `flows.runtime.prefect_for`."""
