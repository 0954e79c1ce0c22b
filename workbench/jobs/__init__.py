"""What worker processes run: functions of plain values, by name."""
