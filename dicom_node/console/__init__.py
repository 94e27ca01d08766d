"""Web pages for people: results shown as pages and pictures; decides nothing and changes nothing."""
