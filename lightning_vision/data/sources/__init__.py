"""Sources: tables, folders, generated shapes, loose files and images in memory, each read into a SampleIndex."""
