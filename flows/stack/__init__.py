"""The servers of one machine: started, watched and stopped."""
