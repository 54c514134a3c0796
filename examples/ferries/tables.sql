CREATE TABLE ferries (name TEXT PRIMARY KEY, harbour TEXT, seats INTEGER, built INTEGER, fare INTEGER);
CREATE TABLE crossings (ferry TEXT REFERENCES ferries, day TEXT, passengers INTEGER);
INSERT INTO ferries VALUES ('Heron', 'Dorrel', 120, 1987, 4), ('Otter', 'Zura', 80, 2005, 3),
    ('Petrel', 'Dorrel', 200, 2012, 6), ('Tern', 'Vell', 60, 1998, 2), ('Gannet', 'Zura', 150, 2001, 5);
INSERT INTO crossings VALUES
    ('Heron', 'Monday', 96), ('Heron', 'Tuesday', 81), ('Heron', 'Friday', 117), ('Otter', 'Monday', 44),
    ('Otter', 'Friday', 71), ('Petrel', 'Monday', 130), ('Petrel', 'Tuesday', 154), ('Petrel', 'Thursday', 98),
    ('Petrel', 'Friday', 190), ('Tern', 'Monday', 31), ('Tern', 'Tuesday', 22), ('Tern', 'Friday', 58),
    ('Gannet', 'Monday', 101), ('Gannet', 'Friday', 149);
