"""The commands on files: inspect, compare, profile, doctor, verify. One a file."""
